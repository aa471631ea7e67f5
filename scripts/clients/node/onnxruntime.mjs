// Runs graphs of packages with onnxruntime alone, on tensors that were made elsewhere.
//
//     node onnxruntime.mjs JOB.json
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import ort from 'onnxruntime-node';

const SUFFIX = { fp32: '', fp16: '_fp16', q8: '_quantized', q4: '_q4' };
const ARRAYS = { int64: BigInt64Array, float32: Float32Array };

const tensor = ({ type, dims, data }) =>
    new ort.Tensor(type, type === 'int64' ? BigInt64Array.from(data.map(BigInt)) : ARRAYS[type].from(data), dims);

async function run(packages, { package: name, precision, inputs: { feed } }) {
    const path = join(packages, name, 'onnx', `${feed.graph}${SUFFIX[precision]}.onnx`);
    const session = await ort.InferenceSession.create(path);
    try {
        const inputs = session.inputNames.map((name) => [name, tensor(feed.inputs[name])]);
        const outputs = await session.run(Object.fromEntries(inputs), [feed.output]);
        return { values: Array.from(outputs[feed.output].data, Number) };
    } finally {
        await session.release();
    }
}

const job = JSON.parse(readFileSync(process.argv[2], 'utf8'));
const results = [];
for (const entry of job.cases) {
    results.push(await run(job.packages, entry).catch((error) => ({ error: String(error?.stack ?? error) })));
}
const { version } = createRequire(import.meta.url)('onnxruntime-node/package.json');
process.stdout.write(JSON.stringify({ version: `${version}, node ${process.version.slice(1)}`, results }));

// One function a task, the same in Node and in the browser: inputs in, {values, text} out.
import { RawImage, Tensor, pipeline } from '@huggingface/transformers';

const flat = (tensor) => Array.from(tensor.data, Number);

/** The logits of the last position, of the first row. */
const lastLogits = (logits) => {
    const width = logits.dims.at(-1);
    return Array.from(logits.data.slice((logits.dims[1] - 1) * width, logits.dims[1] * width), Number);
};

const ids = (rows) => new Tensor('int64', BigInt64Array.from(rows.flat().map(BigInt)), [rows.length, rows[0].length]);

const TASKS = {
    async 'feature-extraction'(pipe, { texts }) {
        return { values: flat(await pipe(texts, { pooling: 'mean', normalize: true })) };
    },
    async 'text-classification'(pipe, { texts, labels }) {
        const found = await pipe(texts, { top_k: null });
        return { values: found.flatMap((row) => labels.map((label) => row.find((entry) => entry.label === label).score)) };
    },
    async 'text-generation'(pipe, { prompts, options }) {
        const { logits } = await pipe.model(await pipe.tokenizer(prompts[0]));
        const text = [];
        for (const prompt of prompts) {
            const made = await pipe(prompt, { ...options, return_full_text: false });
            text.push(made[0].generated_text);
        }
        const batch = await pipe(prompts, { ...options, return_full_text: false });
        return { values: lastLogits(logits), text: [...text, ...batch.map((made) => made[0].generated_text)] };
    },
    async translation(pipe, { texts, decoder, options, languages }) {
        const inputs = await pipe.tokenizer(texts, { padding: true });
        const { logits } = await pipe.model({ ...inputs, decoder_input_ids: ids([decoder, ...texts.slice(1).map(() => decoder)]) });
        // One by one: in a batch, transformers.js goes on writing behind the end of a row until all have ended.
        const text = [];
        for (const one of texts) {
            text.push((await pipe(one, { ...options, ...languages }))[0].translation_text);
        }
        return { values: lastLogits(logits), text };
    },
    async 'automatic-speech-recognition'(pipe, { audio, decoder, options }) {
        const wave = Float32Array.from(audio);
        const { logits } = await pipe.model({ ...(await pipe.processor(wave)), decoder_input_ids: ids([decoder]) });
        const made = await pipe(wave, options);
        return { values: lastLogits(logits), text: [made.text] };
    },
    async 'image-classification'(pipe, { image, labels }) {
        const raw = new RawImage(Uint8ClampedArray.from(image.data), image.width, image.height, 3);
        const found = await pipe(raw, { top_k: null });
        return { values: labels.map((label) => found.find((entry) => entry.label === label).score) };
    },
};

export async function runCase({ package: name, task, precision, inputs }, device) {
    const pipe = await pipeline(task, name, { dtype: precision, device });
    try {
        return await TASKS[task](pipe, inputs);
    } finally {
        await pipe.dispose();
    }
}

// Runs packages with transformers.js and prints what came out as JSON: the numbers and, where text is made, the text.
//
//     node transformersjs.mjs JOB.json
//
// The job is written by scripts/clients/run.py: {packages, cases: [{package, task, precision, inputs}]}.
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { env } from '@huggingface/transformers';
import { runCase } from './cases.mjs';

const job = JSON.parse(readFileSync(process.argv[2], 'utf8'));
env.localModelPath = job.packages;
env.allowRemoteModels = false;

const results = [];
for (const entry of job.cases) {
    try {
        results.push({ ...(await runCase(entry, 'cpu')) });
    } catch (error) {
        results.push({ error: String(error?.stack ?? error) });
    }
}
const version = JSON.parse(
    readFileSync(createRequire(import.meta.url).resolve('@huggingface/transformers').replace(/dist.*/, 'package.json')),
).version;
process.stdout.write(JSON.stringify({ version: `${version}, node ${process.version.slice(1)}`, results }));

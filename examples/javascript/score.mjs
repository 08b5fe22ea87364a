// node score.mjs MODEL.onnx SAMPLES.json: an edgernn artefact without edgernn, a score for every sample.
import { readFile } from "node:fs/promises";
import * as ort from "onnxruntime-web";

ort.env.wasm.numThreads = 1;
const [model, samples] = await Promise.all(process.argv.slice(2).map((path) => readFile(path)));
const session = await ort.InferenceSession.create(model);

// every state is an input [N, …] of zeros at first, and its successor the output of that name + ".next"
const states = session.inputMetadata.filter((input) => input.name !== "x");
const memory = Object.fromEntries(states.map(({ name, shape }) => {
  const dims = [1, ...shape.slice(1)];
  return [name, new ort.Tensor("float32", new Float32Array(dims.reduce((a, b) => a * b, 1)), dims)];
}));

const scores = [];
for (const sample of JSON.parse(samples)) {  // a row of channels in sensor units, null = missing
  const values = Float32Array.from(sample, (value) => value ?? NaN);
  const x = new ort.Tensor("float32", values, [1, 1, sample.length]);  // T, N, C
  const said = await session.run({ x, ...memory });
  for (const { name } of states) memory[name] = said[`${name}.next`];
  scores.push(Number.isNaN(said.score.data[0]) ? null : said.score.data[0]);
}
console.log(JSON.stringify(scores));

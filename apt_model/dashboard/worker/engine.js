/** A small Llama or GPT-2 with int8 weights, in plain JavaScript: one token after another, with what it has seen kept. */

/** The tensors of a safetensors file (a Uint8Array of its own buffer), and what its header says beside them. */
export function readTensors(bytes) {
  const length = Number(new DataView(bytes.buffer).getBigUint64(0, true));
  const header = JSON.parse(new TextDecoder().decode(bytes.subarray(8, 8 + length)));
  const tensors = {};
  for (const [name, { dtype, shape, data_offsets: place }] of Object.entries(header).filter(([one]) => one !== "__metadata__")) {
    const [from, to] = place;
    const start = 8 + length + from;
    tensors[name] = dtype === "I8" ? new Int8Array(bytes.buffer, start, to - from) : new Float32Array(bytes.buffer, start, (to - from) / 4);
    tensors[name].columns = shape[shape.length - 1];
  }
  return { tensors, about: header.__metadata__ };
}

const ACTIVATIONS = {
  silu: (x) => x / (1 + Math.exp(-x)),
  relu: (x) => Math.max(0, x),
  gelu_new: gelu,
  gelu_pytorch_tanh: gelu,
};

function gelu(x) {
  return 0.5 * x * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x * x * x)));
}

/** One stage of the student, reading one text. */
export class Student {
  constructor(bytes) {
    const { tensors, about } = readTensors(bytes);
    Object.assign(this, { tensors, shape: JSON.parse(about.shape) });
    this.activation = ACTIVATIONS[this.shape.activation];
    this.width = tensors.embed.columns;
    this.forget();
  }

  /** Begin a new text. */
  forget() {
    this.length = 0;
    this.keys = Array.from({ length: this.shape.layers }, () => []);
    this.values = Array.from({ length: this.shape.layers }, () => []);
  }

  /** The logits (Float32Array of the vocabulary) after one more token. */
  read(token) {
    const { layers } = this.shape;
    const x = this.embedded(token);
    for (let layer = 0; layer < layers; layer += 1) {
      add(x, this.attend(layer, this.normed(`${layer}.norm1`, x)));
      add(x, this.think(layer, this.normed(`${layer}.norm2`, x)));
    }
    this.length += 1;
    return this.times(this.tensors.head ? "head" : "embed", this.normed("norm", x));
  }

  embedded(token) {
    const x = new Float32Array(this.width);
    this.addRow(x, "embed", token);
    if (this.tensors.positions) this.addRow(x, "positions", this.length);
    return x;
  }

  addRow(x, name, row) {
    const scale = this.tensors[`${name}.scale`][row];
    const from = row * x.length;
    for (let at = 0; at < x.length; at += 1) x[at] += this.tensors[name][from + at] * scale;
  }

  /** RMS norm, or layer norm with its bias. */
  normed(name, x) {
    const { norm, epsilon } = this.shape;
    const [weight, bias] = [this.tensors[name], this.tensors[`${name}.bias`]];
    const mean = norm === "rms" ? 0 : x.reduce((sum, one) => sum + one, 0) / x.length;
    const variance = x.reduce((sum, one) => sum + (one - mean) ** 2, 0) / x.length;
    const factor = 1 / Math.sqrt(variance + epsilon);
    return x.map((one, at) => (one - mean) * factor * weight[at] + (bias ? bias[at] : 0));
  }

  /** A matrix, int8 with a scale for each row, times a vector; the bias where there is one. */
  times(name, x) {
    const [matrix, scale, bias] = [this.tensors[name], this.tensors[`${name}.scale`], this.tensors[`${name}.bias`]];
    const y = new Float32Array(scale.length);
    for (let row = 0, at = 0; row < y.length; row += 1) {
      let sum = 0;
      for (let column = 0; column < x.length; column += 1, at += 1) sum += matrix[at] * x[column];
      y[row] = sum * scale[row] + (bias ? bias[row] : 0);
    }
    return y;
  }

  attend(layer, x) {
    const { heads, kv_heads: groups, head_size: size, scales } = this.shape;
    const [query, key] = [this.turned(this.times(`${layer}.q`, x)), this.turned(this.times(`${layer}.k`, x))];
    this.keys[layer].push(key);
    this.values[layer].push(this.times(`${layer}.v`, x));
    const seen = new Float32Array(heads * size);
    for (let head = 0; head < heads; head += 1) {
      const [from, group] = [head * size, Math.floor((head * groups) / heads) * size];
      const weights = softmax(this.keys[layer].map((one) => dot(query, from, one, group, size) * scales[layer]));
      weights.forEach((weight, place) => {
        const value = this.values[layer][place];
        for (let at = 0; at < size; at += 1) seen[from + at] += weight * value[group + at];
      });
    }
    return this.times(`${layer}.o`, seen);
  }

  /** Rotary positions: each pair (i, i + half) of a head is turned by the place times its frequency. */
  turned(vector) {
    const frequencies = this.tensors.rotary;
    if (!frequencies) return vector;
    const { head_size: size, rotary_scale: scale } = this.shape;
    const half = size / 2;
    for (let i = 0; i < half; i += 1) {
      const angle = Math.fround(this.length * frequencies[i]);
      const [cosine, sine] = [Math.fround(Math.cos(angle)) * scale, Math.fround(Math.sin(angle)) * scale];
      for (let from = i; from < vector.length; from += size) {
        const [one, other] = [vector[from], vector[from + half]];
        vector[from] = one * cosine - other * sine;
        vector[from + half] = other * cosine + one * sine;
      }
    }
    return vector;
  }

  think(layer, x) {
    const up = this.times(`${layer}.up`, x);
    if (!this.tensors[`${layer}.gate`]) return this.times(`${layer}.down`, up.map(this.activation));
    const gate = this.times(`${layer}.gate`, x);
    return this.times(`${layer}.down`, up.map((one, at) => this.activation(gate[at]) * one));
  }
}

function add(x, more) {
  for (let at = 0; at < x.length; at += 1) x[at] += more[at];
}

function dot(one, from, other, start, size) {
  let sum = 0;
  for (let at = 0; at < size; at += 1) sum += one[from + at] * other[start + at];
  return sum;
}

/** Numbers of at least one into shares that sum to 1. */
export function softmax(numbers) {
  const most = numbers.reduce((one, other) => Math.max(one, other), -Infinity);
  const powers = numbers.map((one) => Math.exp(one - most));
  const sum = powers.reduce((one, other) => one + other, 0);
  return powers.map((one) => one / sum);
}

/** The token chosen: the likeliest at temperature 0, else drawn by `luck` in [0, 1). */
export function choose(logits, temperature, luck) {
  if (temperature <= 0) return logits.reduce((best, one, at) => (one > logits[best] ? at : best), 0);
  const shares = softmax(Array.from(logits, (one) => one / temperature));
  let left = luck;
  const found = shares.findIndex((share) => (left -= share) < 0);
  return found < 0 ? shares.length - 1 : found;
}

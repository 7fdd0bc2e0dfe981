/** What a temperature does to a distribution of which only the likeliest tokens are known. */

/**
 * Soften `top` ([[text, probability], …]) by `temperature`; the rest is spread evenly over `others` tokens.
 *
 * Returns {shares, rest, entropy}: probabilities of the known tokens and of all others together, entropy in nats.
 * Source: Hinton et al. 2015, arXiv:1503.02531, section 2; softmax(z / T) is p^(1/T), normalised.
 */
export function soften(top, others, temperature) {
  const power = 1 / temperature;
  const rest = Math.max(0, 1 - top.reduce((sum, [, share]) => sum + share, 0));
  const weights = top.map(([, share]) => Math.pow(share, power));
  const each = others > 0 && rest > 0 ? Math.pow(rest / others, power) : 0;
  const total = weights.reduce((sum, weight) => sum + weight, 0) + others * each;
  const shares = weights.map((weight) => weight / total);
  const one = each / total;
  const surprise = (share) => (share > 0 ? -share * Math.log(share) : 0);
  const entropy = shares.reduce((sum, share) => sum + surprise(share), 0) + others * surprise(one);
  return { shares, rest: others * one, entropy };
}

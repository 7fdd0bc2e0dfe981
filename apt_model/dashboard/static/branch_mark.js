/** Where lessons part, in a chart: an upright dotted line at the step of each branch in view. */
import {colour} from "./dom.js";
import {lessonsInView} from "./state.js";

/** A hook of uPlot: draws over the curves. */
export function drawForks(chart) {
  const { ctx, bbox } = chart;
  const steps = lessonsInView().map((lesson) => lesson.started && lesson.started.branch && lesson.started.branch.step);
  for (const step of new Set(steps.filter(Number.isFinite))) {
    const x = Math.round(chart.valToPos(step, "x", true));
    if (x < bbox.left || x > bbox.left + bbox.width) continue;
    ctx.save();
    ctx.strokeStyle = colour("gold");
    ctx.lineWidth = Math.max(1, devicePixelRatio);
    ctx.setLineDash([2 * devicePixelRatio, 4 * devicePixelRatio]);
    ctx.beginPath();
    ctx.moveTo(x, bbox.top);
    ctx.lineTo(x, bbox.top + bbox.height);
    ctx.stroke();
    ctx.restore();
  }
}

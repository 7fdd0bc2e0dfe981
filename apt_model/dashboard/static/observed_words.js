/** What the page says instead, by the same keys, of a lesson whose student does not learn from the teacher. */

export const OBSERVED = {
  "topics.heat": ["各主题与教师的接近程度", "Closeness to the teacher by topic"],
  "topics.heatnote": [
    "接近程度 = 1 − 平均偷懒程度；颜色越深、数字越大，学生与教师越接近。",
    "Closeness = 1 − mean laziness: the deeper the shade and the higher the number, the closer to the teacher.",
  ],
  "topics.cell": ["{topic}，Epoch {epoch}：接近程度 {mastery}，{samples} 张卡片", "{topic}, epoch {epoch}: closeness {mastery}, {samples} cards"],
  "topics.wordsnote": [
    "KL 曾到 2 nat 以上的词：最高 → 最近一次；低于 0.5 nat 算接近教师。",
    "Tokens whose KL once reached 2 nats: highest → latest. Below 0.5 nats counts as close to the teacher.",
  ],
  "topics.mastered": ["接近教师", "close to the teacher"],
  "topics.forgotten": ["又远离了", "apart again"],
  "topics.hard": ["一直有差别", "still apart"],
  "temperature.own": ["用样本损失的 T = {temperature}", "The cards' own T = {temperature}"],
  "temperature.dark": [
    "这几个候选里，教师给「{first}」{p1}，其余几个一共只有 {q1}。T = {temperature} 时，「{first}」降到 {p2}，其余几个升到 {q2}：「{second}」和「{third}」哪个更接近，就看得出来了。错的答案之间也分高低，这就是暗知识。",
    "Among these candidates the teacher gives “{first}” {p1}, which leaves {q1} for the others. At T = {temperature} it falls to {p2} and they rise to {q2}: now one can see which of “{second}” and “{third}” is closer to being right. How the wrong answers rank is the dark knowledge.",
  ],
  "reports.trend": ["变化趋势", "Trend"],
};

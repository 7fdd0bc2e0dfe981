/** Every word of the page, Chinese first and English beside it. The lesson's own sentences are in lesson_words.js. */
import {BRANCH_WORDS} from "./branch_words.js";
import {brief, clean} from "./clean.js";
import {COMPARED} from "./compare_words.js";
import {INSIDE_WORDS} from "./inside_words.js";
import {LESSON} from "./lesson_words.js";
import {OBSERVED} from "./observed_words.js";
import {PAGE_WORDS} from "./page_words.js";
import {PRESENTER_WORDS} from "./presenter_words.js";
import {STORY} from "./story_words.js";
import {TOPIC_WORDS} from "./topic_words.js";

const LONGEST_TOPIC = 24;

export const LANGUAGES = ["zh", "en"];
export const speech = { language: "zh", observed: false };

export const WORDS = {
  "page.title": ["课堂 · 知识蒸馏", "The classroom · knowledge distillation"],
  "page.brand": ["蒸馏课堂", "The classroom"],
  "page.skip": ["跳到内容", "Skip to the content"],
  "page.views": ["视图", "Views"],
  "page.run": ["这堂课", "Lesson"],
  "page.language": ["English", "中文"],
  "page.dark": ["换成黑板（深色）", "Blackboard (dark)"],
  "page.light": ["换成白纸（浅色）", "Paper (light)"],
  "page.empty": ["还没有课。用 apt-model demo --watch 上一堂看看。", "No lesson yet. Try apt-model demo --watch."],
  "page.loading": ["正在翻开课堂记录……", "Opening the record of the lesson…"],
  "link.live": ["直播中", "Live"],
  "link.over": ["已下课", "Lesson over"],
  "link.waiting": ["连接断了，正在重连", "Connection lost, reconnecting"],
  "link.loading": ["载入中", "Loading"],
  "link.none": ["离线报告", "Offline report"],
  "view.now": ["当前", "Now"],
  "view.lazy": ["为什么偷懒", "Why lazy"],
  "view.topics": ["主题", "Topics"],
  "view.exam": ["考试", "Exam"],
  "view.temperature": ["温度", "Temperature"],
  "view.reports": ["成绩单", "Report cards"],
  "view.lessons": ["课程列表", "Lessons"],
  "replay.title": ["回放", "Replay"],
  "replay.play": ["播放", "Play"],
  "replay.pause": ["暂停", "Pause"],
  "replay.previous": ["上一张卡片", "Previous card"],
  "replay.next": ["下一张卡片", "Next card"],
  "replay.slider": ["训练进度（步）", "Step of the lesson"],
  "replay.at": ["第 {step} 步，共 {total} 步", "step {step} of {total}"],
  "replay.step": ["第 {step} / {total} 步", "Step {step} / {total}"],
  "replay.speed": ["速度", "Speed"],
  "replay.follow": ["跟上直播", "Follow live"],
  "replay.following": ["正在跟播", "Following live"],
  "now.waiting": ["还没有卡片，学生正在听讲。", "No card yet: the student is listening."],
  "now.step": ["第 {step} 步", "Step {step}"],
  "now.epoch": ["Epoch {epoch}", "Epoch {epoch}"],
  "now.batch": ["Batch {batch}", "Batch {batch}"],
  "now.source.train": ["训练样本", "training sample"],
  "now.source.validation": ["验证样本", "validation sample"],
  "now.source.probe": ["固定样本", "fixed sample"],
  "now.topic": ["教学主题", "Topic"],
  "now.given": ["开头", "Prompt"],
  "now.original": ["原文", "Text"],
  "now.silence": ["（沉默）", "(silence)"],
  "now.predicted": ["每个词都是看着前面的原文作出的最佳猜测。", "Each word is the best guess after the true ones before it."],
  "now.guesses": ["逐词对照：看着前面的原文，两边各自最想说的下一个词", "Token by token: what each would say next after the true text"],
  "now.agree": ["与教师一致 {agreement}", "agrees with the teacher on {agreement}"],
  "now.oftokens": ["偷懒程度（按 token id）", "Laziness (of token ids)"],
  "now.gain": ["损失中还能降的", "Avoidable loss"],
  "now.teacher": ["教师", "Teacher"],
  "now.student": ["学生", "Student"],
  "now.laziness": ["偷懒程度", "Laziness"],
  "now.remark": ["评语", "Remark"],
  "now.cards": ["这一步的卡片", "Cards at this step"],
  "now.card": ["第 {index} 张", "Card {index}"],
  "now.formula": [
    "{similarity_weight} × (1 − 文本相似度 {similarity}) + {kl_weight} × KL {kl} = {laziness}",
    "{similarity_weight} × (1 − similarity {similarity}) + {kl_weight} × KL {kl} = {laziness}",
  ],
  "now.part.text": ["文字差异", "text difference"],
  "now.part.kl": ["概率差异", "probability difference"],
  "now.legend": ["学生的词离教师多远（KL，nat）", "How far a token is from the teacher (KL, nats)"],
  "now.legend.same": ["同一个词", "same token"],
  "now.legend.other": ["说了别的", "different token"],
  "now.hint": ["指向、点按或用方向键逐词细看。", "Point at, tap, or walk the tokens with the arrow keys."],
  "now.plain": ["这张卡片没有逐词的记录，只有两边说的话。", "This card was not recorded token by token; it has only the two texts."],
  "now.moment": ["这一步", "This step"],
  "now.loss": ["损失", "Loss"],
  "now.kd": ["KD（跟教师学）", "KD (from the teacher)"],
  "now.ce": ["CE（跟原文学）", "CE (from the text)"],
  "now.rate": ["学习率", "Learning rate"],
  "now.norm": ["梯度范数", "Gradient norm"],
  "now.speed": ["token/秒", "tokens/s"],
  "now.gap": ["熵差（nat）", "Entropy gap (nats)"],
  "now.similarity": ["文本相似度", "Text similarity"],
  "now.kl": ["KL（归一化）", "KL (normalised)"],
  "now.sampleloss": ["这张卡片的损失", "This card's loss"],
  "now.room": ["师生", "Teacher and student"],
  "now.parameters": ["参数", "Parameters"],
  "now.size": ["大小", "Size"],
  "now.shape": ["层 × 宽", "Layers × width"],
  "now.settings": ["温度 {temperature} · α {alpha} · β {beta}", "temperature {temperature} · α {alpha} · β {beta}"],
  "now.trainer": ["训练器：{trainer}；卡片的损失：温度 {temperature} · α {alpha} · β {beta}", "Trained by {trainer}; the cards' loss: temperature {temperature} · α {alpha} · β {beta}"],
  "now.observing": [
    "旁观：教师在这里只用来对照，偷懒程度只表示学生与它差多少。",
    "Observing: the student is only compared with the teacher. Laziness says how far apart they are.",
  ],
  "now.notices": ["课堂消息", "Notices"],
  "now.nostep": ["还没有走完一步。", "No step finished yet."],
  "token.label": [
    "第 {index} 个词「{student}」，教师说「{teacher}」，KL {kl} nat",
    "token {index} “{student}”, teacher says “{teacher}”, KL {kl} nats",
  ],
  "token.position": ["第 {index} / {total} 个词", "Token {index} of {total}"],
  "token.kl": ["KL {kl} nat", "KL {kl} nats"],
  "token.rest": ["其余", "the rest"],
  "token.entropy": ["熵 {entropy} nat", "entropy {entropy} nats"],
  "token.strip": ["学生的话，逐词", "What the student said, token by token"],
  "lazy.intro": [
    "偷懒程度 = 文字差异 + 概率差异。文字差异 = {similarity_weight} ×（1 − 文本相似度），概率差异 = {kl_weight} × 归一化 KL。看看是哪一部分在下降。",
    "Laziness = text difference + probability difference, where text difference = {similarity_weight} × (1 − text similarity) and probability difference = {kl_weight} × normalised KL. See which part falls.",
  ],
  "lazy.parts": ["偷懒程度和它的两部分", "Laziness and its two parts"],
  "lazy.laziness": ["偷懒程度", "laziness"],
  "lazy.text": ["文字差异", "text difference"],
  "lazy.kl": ["概率差异", "probability difference"],
  "lazy.readings": ["固定的文本：与教师一致，偷懒程度", "Fixed rows: agreement with the teacher, laziness"],
  "lazy.readingsnote": [
    "训练前选定几十条文本，每次读的都是它们；浅色带是 95% 区间。没学过的说明真正学会了多少，学过的还包括背下来的。",
    "The same few dozen rows, chosen before the first step, are read every time; the bands are 95% intervals. Unseen text shows what was understood; learned text also counts what is known by heart.",
  ],
  "lazy.none.readings": ["这堂课没有测过固定的文本。", "This lesson has no readings of fixed rows."],
  "lazy.unseen.agreement": ["没学过的：一致", "unseen: agreement"],
  "lazy.unseen.laziness": ["没学过的：偷懒", "unseen: laziness"],
  "lazy.learned.agreement": ["学过的：一致", "learned: agreement"],
  "lazy.learned.laziness": ["学过的：偷懒", "learned: laziness"],
  "lazy.agreement": ["首选词一致", "Top-1 agreement"],
  "lazy.gap": ["熵差（学生 − 教师）", "entropy gap (student − teacher)"],
  "lazy.gapnote": [
    "大于 0：学生比教师更犹豫；小于 0：学生过于自信。",
    "Above 0 the student is less certain than the teacher; below 0, too certain.",
  ],
  "lazy.pulls": ["学生听谁的", "Whom the student listens to"],
  "lazy.pullsnote": [
    "损失的两项各自对学生 logits 的梯度范数（按权重计）。谁的高，学生就听谁的；学生越像教师，教师的就越低。",
    "The norm of each weighted term's gradient with respect to the student's logits. The student follows the larger one; the teacher's falls as the student grows more like the teacher.",
  ],
  "lazy.none.pulls": ["这堂课没有分别记录两项的梯度。", "This lesson has no record of these gradients."],
  "lazy.kdpull": ["教师（KD）", "the teacher (KD)"],
  "lazy.cepull": ["标签（CE）", "the labels (CE)"],
  "lazy.softness": ["教师有多不确定", "How uncertain the teacher is"],
  "lazy.softnessnote": [
    "训练温度下教师分布的熵，占最大值（所有 token 一样可能）的份额。接近 100% 时教师几乎什么也没说。",
    "The entropy of the teacher's distribution at the training temperature, as a share of its maximum (all tokens equally likely). Near 100% the teacher tells the student almost nothing.",
  ],
  "lazy.losses": ["损失", "Losses"],
  "lazy.total": ["总损失", "total"],
  "lazy.rate": ["学习率", "Learning rate"],
  "lazy.norm": ["梯度范数（裁剪前）", "Gradient norm (before clipping)"],
  "lazy.speed": ["每秒 token 数", "Tokens per second"],
  "lazy.none": ["还没有数据可画。", "Nothing to draw yet."],
  "lazy.none.gap": ["这堂课没有记录熵差。", "This lesson has no entropy gap."],
  "lazy.chart": ["{title}，第 {step} 步：{values}", "{title}, step {step}: {values}"],
  "lazy.joint": ["，", ", "],
  "exam.intro": [
    "同样的题目，每隔一段时间两边各答一遍（贪心解码，不影响训练）。画线的是教师也这么说、先后也一样的部分；一致的百分数按整个答案算：两边共有的词 × 2 ÷ 两边的总词数（汉字和标点各算一个词）。",
    "Both answer the same questions at regular intervals (greedy decoding; training is not affected). Underlined: words that the teacher says too, in the same order. The percentage counts the whole answer: twice the words in common, divided by the words of both.",
  ],
  "exam.none": ["到这一步还没有考试。", "No exam up to this step yet."],
  "exam.never": ["这堂课没有安排考试。", "This lesson has no exams."],
  "exam.question": ["第 {index} 题", "Question {index}"],
  "exam.grown": ["学生历次的回答", "The student's answers over time"],
  "exam.when": ["Epoch {epoch} · 第 {step} 步", "Epoch {epoch} · step {step}"],
  "exam.start": ["课前 · 第 {step} 步", "Before the lesson · step {step}"],
  "exam.same": ["与教师相同", "same as the teacher"],
  "exam.shared": ["整个答案 {share} 一致", "{share} of the whole answer agrees"],
  "temperature.intro": [
    "教师对下一个词的把握，用温度 T 软化：每个概率取 1/T 次方，再归一。选一个词，拖动温度。",
    "What the teacher expects next, softened by the temperature T: every probability is raised to the power 1/T, then all are renormalised. Choose a token and move the slider.",
  ],
  "temperature.slider": ["温度 T", "Temperature T"],
  "temperature.own": ["用这堂课的 T = {temperature}", "This lesson's T = {temperature}"],
  "temperature.token": ["选一个词", "Choose a token"],
  "temperature.bars": ["只在这几个候选里比：T = 1 与 T = {temperature}", "Among these candidates alone: T = 1 and T = {temperature}"],
  "temperature.hard": ["T = 1", "T = 1"],
  "temperature.soft": ["T = {temperature}", "T = {temperature}"],
  "temperature.entropy": ["候选之间的熵 {before} → {after} nat", "Entropy among them: {before} → {after} nats"],
  "temperature.rest": ["其余 {count} 个词", "{count} other tokens"],
  "temperature.known": ["这 {count} 个候选", "these {count} candidates"],
  "temperature.share": ["其余共 {share}", "the rest: {share}"],
  "temperature.most": ["其余共至多 {share}", "the rest: at most {share}"],
  "temperature.even": [
    "其余的词只知道合计，这里按平均分配来算；软化之后它们至多占这么多。",
    "Only the sum of the rest is known; here it is spread evenly, which gives the most that the rest can have after softening.",
  ],
  "temperature.dark": [
    "只在这几个候选里比，教师给「{first}」{p1}，其余几个一共 {q1}。T = {temperature} 时，「{first}」降到 {p2}，其余几个升到 {q2}：次序不变，靠后的分量重了，学生也会去学它们，比如「{second}」比「{third}」更像。没被选中的词谁高谁低也是知识，叫暗知识。",
    "Among these candidates alone the teacher gives “{first}” {p1} and the others {q1}. At T = {temperature} it falls to {p2} and they rise to {q2}: the order stays, but those behind weigh more, so the student learns them too, such as that “{second}” is likelier than “{third}”. How the words not chosen rank is the dark knowledge.",
  ],
  "temperature.flat": [
    "T 太高时所有词几乎一样，分不出谁更像对的，暗知识也就淡了。",
    "Too high a T makes all tokens alike: the ranking fades, and the dark knowledge with it.",
  ],
  "temperature.same": [
    "T = 1 就是教师本来的样子：「{first}」占了 {p1}。把温度调高，看看别的词。",
    "T = 1 is the teacher as it is: “{first}” has {p1}. Raise the temperature and watch the others.",
  ],
  "temperature.sharp": [
    "T 小于 1 时分布更尖，靠后的词分量更轻；T 越小，越只剩第一名，像直接抄答案。",
    "Below 1 the distribution sharpens: those behind weigh less, and the lower T, the more only the first is left, as in copying the answer.",
  ],
  "temperature.shares": ["损失里谁占多少（第 {step} 步）", "What the loss is made of (step {step})"],
  "temperature.sharenote": [
    "损失 = α·KD + β·CE = {alpha} × {kd} + {beta} × {ce} = {loss}（KD 按这堂课的 T = {temperature} 计）",
    "loss = α·KD + β·CE = {alpha} × {kd} + {beta} × {ce} = {loss} (KD at this lesson's T = {temperature})",
  ],
  "temperature.kd": ["α·KD 跟教师学", "α·KD from the teacher"],
  "temperature.ce": ["β·CE 跟原文学", "β·CE from the text"],
  "temperature.noshares": ["这一步没有分开记录 KD 和 CE。", "KD and CE were not recorded separately at this step."],
  "temperature.none": ["这里要用带逐词记录的卡片，到这一步还没有。", "This needs a card recorded token by token; there is none up to this step."],
  "reports.none": ["第一个 epoch 还没有结束。", "The first epoch has not ended yet."],
  "reports.epoch": ["Epoch", "Epoch"],
  "reports.loss": ["平均损失", "Mean loss"],
  "reports.laziness": ["平均偷懒程度", "Mean laziness"],
  "reports.topics": ["主题（样本数）与偷懒程度", "Topics (samples) and laziness"],
  "reports.topic": ["{topic}（{samples}）{laziness}", "{topic} ({samples}) {laziness}"],
  "reports.validation": ["验证：损失 {loss}，与教师一致 {agreement}", "validation: loss {loss}, agreement {agreement}"],
  "reports.time": ["用时", "Time"],
  "reports.skipped": ["跳过 {count} 个没有标签的 batch", "{count} batches without labels skipped"],
  "reports.title": ["每个 epoch 的成绩", "Epoch by epoch"],
  "reports.verdict": ["结业评定", "The verdict"],
  "reports.trend": ["学习趋势", "Trend"],
  "reports.samples": ["总样本数（看过的卡片）", "Samples (cards shown)"],
  "reports.headline": ["最后四分之一样本的偷懒程度", "Laziness over the last quarter of the samples"],
  "reports.grade": ["成绩", "Final grade"],
  "reports.mastery": ["{topic}：固定文本上与教师一致 {mastery}（{rows} 条）", "{topic}: agreement with the teacher on fixed rows {mastery} ({rows})"],
  "reports.mean": ["总体平均偷懒程度", "Mean laziness"],
  "reports.course": ["偷懒程度变化", "Laziness, first to last"],
  "reports.losses": ["训练损失变化", "Training loss, first to last"],
  "reports.tokens": ["学过的 token", "Tokens learned from"],
  "reports.advice": ["建议", "Advice"],
  "reports.failures": ["显示部分出过问题（训练未受影响）", "The display had errors (training was not affected)"],
  "reports.pending": ["还没有下课，评定要等到最后一步。", "The lesson is not over: the verdict comes with the last step."],
  "damage.lines": ["记录有损坏：{count} 行读不了，已略过；第一处在第 {line} 行。", "The record is damaged: {count} of its lines cannot be read and are left out; the first is line {line}."],
  "damage.unreadable": ["记录读不了。", "The record cannot be read."],
  "level.0": ["几乎相同", "almost the same"],
  "level.1": ["略有出入", "slightly off"],
  "level.2": ["明显不同", "clearly off"],
  "level.3": ["相差很远", "far off"],
  "level.4": ["完全不同", "completely different"],
};

const TABLES = [WORDS, TOPIC_WORDS, PAGE_WORDS, PRESENTER_WORDS, COMPARED, INSIDE_WORDS, STORY, BRANCH_WORDS, LESSON];

/** Speak as is true of `lesson`: of one whose student does not learn from the teacher, some words are others. */
export function speakOf(lesson) {
  speech.observed = Boolean(lesson && lesson.observed);
}

/** The sentence under `key` in the language in force, its `{placeholders}` filled in. */
export function say(key, values) {
  const observed = speech.observed && (OBSERVED[key] || LESSON[`observed.${key}`]);
  const pair = observed || TABLES.map((table) => table[key]).find(Boolean);
  if (!pair) throw new Error(`no word ${key}`);
  return fill(pair[LANGUAGES.indexOf(speech.language)], values || {});
}

/** Whether there is a sentence under `key`. */
export function knows(key) {
  return TABLES.some((table) => key in table);
}

/** One of the ways to say `key`; the step chooses, as in apt_model/i18n.py. */
export function sayVariant(key, turn, values) {
  const ways = [].concat(LESSON[key][LANGUAGES.indexOf(speech.language)]);
  return fill(ways[(turn + Math.floor(turn / ways.length)) % ways.length], values);
}

/** A card's remark in the language in force; one of a user's own, or of an old record, as it was made. */
export function remarkWord(card) {
  const key = `remarks.${card.remark_key}`;
  const ways = (speech.observed && LESSON[`observed.${key}`]) || LESSON[key];
  return ways ? ways[LANGUAGES.indexOf(speech.language)][card.remark_variant] || clean(card.remark, 500) : clean(card.remark, 500);
}

function fill(sentence, values) {
  return sentence.replace(/\{(\w+)\}/g, (hole, name) => (Object.keys(values).includes(name) ? String(values[name]) : hole));
}

/** A topic by its name in the language in force, or as it is, short enough for a table. */
export function topicWord(topic) {
  return brief(`topics.${topic}` in LESSON ? say(`topics.${topic}`) : topic, LONGEST_TOPIC);
}

/** The words of tokens, cells and the card's own step; those of the presenter are in presenter_words.js. */

export const PAGE_WORDS = {
  "token.part": [
    "⟨…⟩ 是字节：这样的词只是一个字的一部分，几个合起来才是一个字。",
    "⟨…⟩ is a byte: such a token is a part of a character, which takes several of them.",
  ],
  "token.marks": ["␣ 空格，↵ 换行，⟨…⟩ 一个字的一部分或特殊的词", "␣ a space, ↵ a new line, ⟨…⟩ a part of a character or a special token"],
  "level.why": [
    "KL 小于 {bound} nat 的词不标颜色：单看这样一个词，偷懒程度还在绿灯以内。",
    "Tokens below {bound} nats are left unmarked: by such a token alone laziness would be within the green light.",
  ],
  "now.momentcard": ["这张卡片那一步 · 第 {step} 步", "At this card · step {step}"],
  "now.since": ["课已到第 {step} 步，损失 {loss}", "The lesson is at step {step}, loss {loss}"],
  "topics.fifths": ["掌握度，从低到高", "Mastery, from low to high"],
  "topics.few": ["不足 {few} 条：不上色", "fewer than {few}: no colour"],
  "topics.fewnote": [
    "格子里的小字是它有几条；不足 {few} 条的不上色，一两条说明不了什么。",
    "The small figure is how many it rests on; with fewer than {few} a cell has no colour, for one or two say little.",
  ],
};

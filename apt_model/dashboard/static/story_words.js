/** What the story, the terms, the tour and the questions of a class say; the numbers of the examples are computed by a test. */

export const STORY = {
  "story.title": ["到现在为止", "The story so far"],
  "story.unseen.great_progress": [
    "到这里，学生的进步很明显。拿一些它没学过的文本来考，每 100 个词里，它有 {agree} 个和教师选的一样，一开始只有 {agreed} 个；偷懒程度从 {lazied} 变成 {lazy}。",
    "The student has learned a lot so far. On text it has never seen, it now picks the teacher's word for {agree} tokens in 100, against {agreed} at the start; its laziness went from {lazied} to {lazy}.",
  ],
  "story.unseen.progress": [
    "到这里，学生进步了一点。拿一些它没学过的文本来考，每 100 个词里，它有 {agree} 个和教师选的一样，一开始是 {agreed} 个；偷懒程度从 {lazied} 变成 {lazy}。",
    "The student has learned a little so far. On text it has never seen, it now picks the teacher's word for {agree} tokens in 100, against {agreed} at the start; its laziness went from {lazied} to {lazy}.",
  ],
  "story.unseen.steady": [
    "还看不出学生有变化：在没学过的文本上，每 100 个词里它有 {agree} 个和教师选的一样，一开始是 {agreed} 个。这点差别可能只是碰巧。",
    "No change to be seen yet: on text it has never seen, the student picks the teacher's word for {agree} tokens in 100, against {agreed} at the start. So small a difference may be chance.",
  ],
  "story.unseen.decline": [
    "到这里，学生离教师更远了：在没学过的文本上，偷懒程度从 {lazied} 变成 {lazy}；每 100 个词里它有 {agree} 个和教师选的一样，一开始是 {agreed} 个。",
    "The student has moved away from its teacher: on text it has never seen, its laziness went from {lazied} to {lazy}; it picks the teacher's word for {agree} tokens in 100, against {agreed} at the start.",
  ],
  "story.unseen.unknown": [
    "学没学会，还看不出来。在没学过的文本上，每 100 个词里学生有 {agree} 个和教师选的一样，偷懒程度 {lazy}。",
    "Whether it has learned anything cannot be seen yet. On text it has never seen, the student picks the teacher's word for {agree} tokens in 100; its laziness is {lazy}.",
  ],
  "story.learned.great_progress": [
    "到这里，学生像教师多了：在学过的文本上，每 100 个词里它有 {agree} 个和教师选的一样，一开始只有 {agreed} 个。是真学会了还是背下来了，要看没学过的文本，这堂课没有留。",
    "The student has become much more like its teacher: on text it was taught, it picks the teacher's word for {agree} tokens in 100, against {agreed} at the start. Whether it understands or remembers would show on unseen text, which this lesson has none of.",
  ],
  "story.learned.progress": [
    "到这里，学生离教师近了一点：在学过的文本上，每 100 个词里它有 {agree} 个和教师选的一样，一开始是 {agreed} 个。是真学会了还是背下来了，要看没学过的文本，这堂课没有留。",
    "The student has come a little closer to its teacher: on text it was taught, it picks the teacher's word for {agree} tokens in 100, against {agreed} at the start. Whether it understands or remembers would show on unseen text, which this lesson has none of.",
  ],
  "story.learned.steady": [
    "还看不出学生有变化：在学过的文本上，每 100 个词里它有 {agree} 个和教师选的一样，一开始是 {agreed} 个。这点差别可能只是碰巧。",
    "No change to be seen yet: on text it was taught, the student picks the teacher's word for {agree} tokens in 100, against {agreed} at the start. So small a difference may be chance.",
  ],
  "story.learned.decline": [
    "到这里，学生离教师更远了：在学过的文本上，偷懒程度从 {lazied} 变成 {lazy}；每 100 个词里它有 {agree} 个和教师选的一样，一开始是 {agreed} 个。",
    "The student has moved away from its teacher: on text it was taught, its laziness went from {lazied} to {lazy}; it picks the teacher's word for {agree} tokens in 100, against {agreed} at the start.",
  ],
  "story.learned.unknown": [
    "学没学会，还看不出来。在学过的文本上，每 100 个词里学生有 {agree} 个和教师选的一样，偷懒程度 {lazy}。",
    "Whether it has learned anything cannot be seen yet. On text it was taught, the student picks the teacher's word for {agree} tokens in 100; its laziness is {lazy}.",
  ],
  "story.observed.great_progress": [
    "学生比一开始接近教师得多：同样的文本上，每 100 个词里它有 {agree} 个和教师选的一样，一开始是 {agreed} 个。",
    "The student is much closer to the teacher than at the start: on the same text, it picks the teacher's word for {agree} tokens in 100, against {agreed}.",
  ],
  "story.observed.progress": [
    "学生比一开始更接近教师：同样的文本上，每 100 个词里它有 {agree} 个和教师选的一样，一开始是 {agreed} 个。",
    "The student is closer to the teacher than at the start: on the same text, it picks the teacher's word for {agree} tokens in 100, against {agreed}.",
  ],
  "story.observed.steady": [
    "看不出学生离教师更近还是更远：同样的文本上，每 100 个词里它有 {agree} 个和教师选的一样，一开始是 {agreed} 个。",
    "The student is neither closer to the teacher nor further away, as far as can be seen: on the same text, it picks the teacher's word for {agree} tokens in 100, against {agreed} at the start.",
  ],
  "story.observed.decline": [
    "学生比一开始离教师更远：同样的文本上，每 100 个词里它有 {agree} 个和教师选的一样，一开始是 {agreed} 个。",
    "The student is further from the teacher than at the start: on the same text, it picks the teacher's word for {agree} tokens in 100, against {agreed}.",
  ],
  "story.observed.unknown": [
    "学生在变近还是变远，还看不出来。每 100 个词里，它有 {agree} 个和教师选的一样。",
    "Whether the student comes closer is not seen yet. It picks the teacher's word for {agree} tokens in 100.",
  ],
  "story.soon": ["还没有量过学生学得怎样，先看看卡片。", "The student has not been measured yet: look at the cards meanwhile."],
  "story.answers": [
    "这堂课没有用固定的文本量过，学会了多少，数字上看不出来；下面几次考试的答案可以自己比一比。",
    "This lesson has no readings of fixed text, so no number says how much was learned. Compare the exam's answers below for yourself.",
  ],
  "story.cards": [
    "这堂课没有考试，也没有用固定的文本量过：学会了多少，这里看不出来，只能看一张张卡片。",
    "This lesson has neither exams nor readings of fixed text: how much was learned is not seen here, only the cards are.",
  ],
  "story.curve": ["和教师选一样的词 {agree}%，偷懒程度 {lazy}%（到第 {step} 步）", "picks the teacher's word {agree}%, laziness {lazy}% (up to step {step})"],
  "story.agreement": ["与教师一致", "agreement"],
  "story.laziness": ["偷懒程度", "laziness"],
  "story.unseen": ["没学过的 {rows} 条文本", "{rows} texts it has not seen"],
  "story.learned": ["学过的 {rows} 条文本", "{rows} texts it was taught"],
  "story.exam": ["同一道题，三次回答", "One question, three answers"],
  "story.exams": ["同一道题", "One question"],
  "story.before": ["课前", "Before"],
  "story.half": ["中间 · 第 {step} 步", "In between · step {step}"],
  "story.first": ["第 {step} 步", "Step {step}"],
  "story.now": ["现在 · 第 {step} 步", "Now · step {step}"],
  "story.end": ["下课 · 第 {step} 步", "At the end · step {step}"],
  "story.teacher": ["教师", "Teacher"],
  "story.more": ["看全部考题", "All questions"],
  "term.open": ["{name}：这是什么？", "{name}: what is it?"],
  "term.row": ["这些词是什么意思：", "What the words mean:"],
  "term.all": ["看不懂的词", "The words of this page"],
  "term.help": ["词语解释（?）", "What the words mean (?)"],
  "term.close": ["关上", "Close"],
  "term.example": ["举个例子：", "Example: "],
  "term.laziness.name": ["偷懒程度", "Laziness"],
  "term.laziness.text": [
    "学生离教师有多远：0% 是一模一样，100% 是毫不相干。它由两部分加起来：说出来的话有多不一样，心里的把握有多不一样。",
    "How far the student is from its teacher: 0% is the same, 100% has nothing in common. Two parts add up to it: how much their words differ, and how much their certainty differs.",
  ],
  "term.laziness.example": [
    "话有 80% 相似，归一化的 KL 是 0.5：0.6 × (1 − 0.8) + 0.4 × 0.5 = 32%。",
    "The words are 80% alike and the normalised KL is 0.5: 0.6 × (1 − 0.8) + 0.4 × 0.5 = 32%.",
  ],
  "term.kl.name": ["KL 散度", "KL divergence"],
  "term.kl.text": [
    "教师和学生对下一个词的把握差多少：0 是完全一样，越大差得越远。教师觉得很可能、学生却觉得不可能的词，算得最重。",
    "How far apart teacher and student are about the next word: 0 is the same, and the larger, the further apart. What counts most is a word that the teacher finds likely and the student does not.",
  ],
  "term.kl.example": [
    "三个词，教师给 70%、20%、10%，学生给 50%、30%、20%：KL = 0.085 nat。",
    "Of three words the teacher gives 70%, 20% and 10%, the student 50%, 30% and 20%: KL = 0.085 nats.",
  ],
  "term.nat.name": ["nat", "Nat"],
  "term.nat.text": [
    "信息的单位，就像长度用厘米：KL、熵和损失都用它来量。用自然对数算就是 nat，用 2 的对数算就是 bit。",
    "A unit of information, as the centimetre is one of length: KL, entropy and the losses are measured in it. Natural logarithms give nats, logarithms to base 2 give bits.",
  ],
  "term.nat.example": [
    "猜中一次抛硬币的结果值 0.693 nat，也就是 1 bit；1 nat = 1.443 bit。",
    "The outcome of a coin toss is worth 0.693 nats, which is 1 bit; 1 nat = 1.443 bits.",
  ],
  "term.entropy.name": ["熵", "Entropy"],
  "term.entropy.text": [
    "对下一个词有多拿不准：只认准一个词时是 0，几个词都差不多时就高。熵差是学生的熵减去教师的熵，大于 0 说明学生更犹豫。",
    "How uncertain one is about the next word: 0 with a single word in mind, high when several seem alike. The entropy gap is the student's less the teacher's: above 0 the student is less certain.",
  ],
  "term.entropy.example": [
    "四个词各 25%：熵 1.386 nat；一个 97%、另外三个各 1%：熵 0.168 nat。",
    "Four words at 25% each: entropy 1.386 nats; one at 97% and three at 1% each: 0.168 nats.",
  ],
  "term.alpha.name": ["α（alpha）", "α (alpha)"],
  "term.alpha.text": [
    "损失里「跟教师学」占多重：α 越大，学生越听教师的。损失 = α × KD + β × CE。",
    "The weight of learning from the teacher in the loss: the larger α, the more the student listens to the teacher. Loss = α × KD + β × CE.",
  ],
  "term.alpha.example": [
    "α = 0.7，KD = 2，β = 0.3，CE = 4：损失 = 0.7 × 2 + 0.3 × 4 = 2.6。",
    "α = 0.7, KD = 2, β = 0.3, CE = 4: loss = 0.7 × 2 + 0.3 × 4 = 2.6.",
  ],
  "term.beta.name": ["β（beta）", "β (beta)"],
  "term.beta.text": [
    "损失里「跟原文学」占多重：β 越大，学生越看重书上的标准答案。α 和 β 加起来是 1。",
    "The weight of learning from the text in the loss: the larger β, the more the student goes by the book. α and β add up to 1.",
  ],
  "term.beta.example": [
    "β = 0.3，CE = 4：这一项是 0.3 × 4 = 1.2，在总损失 2.6 里占 46%。",
    "β = 0.3 and CE = 4: this term is 0.3 × 4 = 1.2, which is 46% of a loss of 2.6.",
  ],
  "term.temperature.name": ["温度 T", "Temperature T"],
  "term.temperature.text": [
    "把教师的把握「放软」的旋钮：T 越高，各个词的概率越接近，学生越看得清第二、第三选择。每个概率取 1/T 次方，再调到总和为 1。",
    "A knob that softens what the teacher expects: the higher T, the closer the probabilities come, and the better the student sees the second and third choice. Each is raised to the power 1/T, then all are scaled to add up to 1.",
  ],
  "term.temperature.example": [
    "90%、9%、1% 在 T = 2 时变成 70.3%、22.2%、7.4%。",
    "90%, 9% and 1% become 70.3%, 22.2% and 7.4% at T = 2.",
  ],
  "term.kd.name": ["KD 损失", "KD loss"],
  "term.kd.text": [
    "知识蒸馏这一项损失：学生的把握离教师有多远，也就是在温度 T 下的 KL，再乘以 T²。学生和教师完全一样时是 0。",
    "The distillation part of the loss: how far the student's expectations are from the teacher's, which is KL at temperature T, times T². It is 0 for a student that equals its teacher.",
  ],
  "term.kd.example": ["T = 2，KL 平均 0.05 nat：KD = 2² × 0.05 = 0.2。", "T = 2 and a mean KL of 0.05 nats: KD = 2² × 0.05 = 0.2."],
  "term.ce.name": ["CE（交叉熵）", "CE (cross-entropy)"],
  "term.ce.text": [
    "跟原文学的那一项损失：原文真正的下一个词，学生事先给了多大概率。给得越大，CE 越小；给 100% 时是 0。",
    "The part of the loss that is learned from the text: how probable the student found the word that really comes next. The more probable, the smaller: 0 at 100%.",
  ],
  "term.ce.example": ["给 25%：CE = 1.386 nat；给 50%：0.693 nat。", "A word given 25%: CE = 1.386 nats; one given 50%: 0.693 nats."],
  "term.agreement.name": ["与教师一致", "Agreement"],
  "term.agreement.text": [
    "学生最看好的词和教师最看好的词是不是同一个，一致的占多少。100% 是个个相同；选的词一样，把握也可能不一样，那要看 KL。",
    "How often the student's favourite next word is the teacher's. 100% is every time; the same favourite may still be held with another certainty, which KL shows.",
  ],
  "term.agreement.example": ["12 个词里有 9 个一样：一致 75%。", "9 of 12 words are the same: agreement 75%."],
  "term.norm.name": ["梯度范数", "Gradient norm"],
  "term.norm.text": [
    "这一步想把学生的参数改动多大，方向不管，只看总的长短。太大时会按比例缩短（裁剪），免得一步走过头。",
    "How much this step wants to change the student's weights: the length of all the changes together, whatever their direction. Too long a one is scaled down (clipped), so that no step goes too far.",
  ],
  "term.norm.example": [
    "两个参数的梯度是 3 和 4：范数 √(3² + 4²) = 5；裁剪到 1，就成了 0.6 和 0.8。",
    "Two weights have the gradients 3 and 4: the norm is √(3² + 4²) = 5; clipped to 1 they become 0.6 and 0.8.",
  ],
  "tour.name": ["导览，第 {step} 步，共 {total} 步", "Tour, step {step} of {total}"],
  "tour.again": ["看一遍导览", "Take the tour"],
  "tour.leave": ["不看了", "Skip"],
  "tour.done": ["开始看", "Start"],
  "tour.next": ["下一步", "Next"],
  "tour.back": ["上一步", "Back"],
  "tour.card.title": ["一个大模型在教一个小模型", "A large model teaches a small one"],
  "tour.card.text": [
    "大的叫教师，小的叫学生。每张卡片给两边看同一个开头，然后各自往下写：学生写得越像教师，就学得越好。",
    "The large one is the teacher, the small one the student. Each card gives both the same beginning and lets them go on: the more the student sounds like the teacher, the better it has learned.",
  ],
  "tour.lazy.title": ["偷懒程度：离教师多远", "Laziness: how far from the teacher"],
  "tour.lazy.text": [
    "0% 是和教师一模一样，100% 是毫不相干。绿、黄、红三色告诉你这张卡片算不算好，界线是条上的两道虚线。",
    "0% is exactly like the teacher, 100% has nothing in common. Green, yellow and red say how good this card is; the two dotted lines on the bar are the bounds.",
  ],
  "tour.story.title": ["到现在为止学得怎样", "How it has gone so far"],
  "tour.story.text": [
    "一句话说清学没学会，只凭量过的数；下面是同一道题先后的几次回答。",
    "One sentence says whether it learns, from what was measured and nothing else; below it, the same question answered at different times.",
  ],
  "tour.replay.title": ["时间可以倒回去", "Time can be turned back"],
  "tour.replay.text": [
    "拖动滑块，或者按播放：整页都会回到那一步的样子，从什么都不会，一直看到现在。",
    "Move the slider, or press play: the whole page shows that step, from knowing nothing on.",
  ],
  "tour.views.title": ["还有几页，词语随时可查", "More views, and every word explained"],
  "tour.views.text": [
    "上面这几页是曲线、主题、考试、温度和成绩单。带虚线的词点一下就有解释，按 ? 看全部。",
    "The tabs above hold the curves, topics, exams, temperature and report cards. Words with a dotted line explain themselves at a click; ? shows them all.",
  ],
  "ask.title": ["问学生一个问题", "Ask the student something"],
  "ask.label": ["写一个开头或问题，下次考试时两边都会回答（不影响训练）", "A beginning or a question: both answer it at the next exam (training is not affected)"],
  "ask.send": ["提问", "Ask"],
  "ask.taken": ["收到了，下次考试时回答：{prompt}", "Taken; to be answered at the next exam: {prompt}"],
  "ask.empty": ["先写点什么。", "Write something first."],
  "ask.long": ["太长了：最多 {most} 个字符。", "Too long: {most} characters at most."],
  "ask.fast": ["问得太快了，过一分钟再试。", "Too many at once: try again in a minute."],
  "ask.full": ["这堂课的提问已经满了（{most} 个）。", "This lesson has been asked all it takes ({most} questions)."],
  "ask.closed": ["这堂课现在不收提问。", "This lesson takes no questions now."],
  "ask.failed": ["没送出去，再试一次。", "It was not sent: try again."],
  "ask.asked": ["课堂提问", "Asked by the class"],
};

/** What the page says of branches, Chinese first. */
export const BRANCH_WORDS = {
  "branch.from": ["从「{run}」的第 {step} 步分出：{changed}。", "Branched from “{run}” at step {step}: {changed}."],
  "branch.same": ["设置不变", "nothing changed"],
  "branch.until": ["第 {step} 步之前，两条曲线是同一条。", "Up to step {step} both curves are one and the same."],
  "branch.alone": ["那堂课不在这一页上。", "That lesson is not on this page."],
  "branch.open": ["如果当时换个设置？从这里分出一堂课", "What if? Branch from here"],
  "branch.intro": [
    "从第 {step} 步的检查点接着学，只换一个设置；原来的课一点不变。两种走法会画在同一张图上。",
    "Go on from the checkpoint of step {step} with one setting changed. This lesson stays as it is, and both futures are drawn in one chart.",
  ],
  "branch.nearest": ["（离第 {step} 步最近的检查点）", "(the checkpoint nearest to step {step})"],
  "branch.kept": ["有检查点的步：{steps}", "Steps with a checkpoint: {steps}"],
  "branch.comma": ["、", ", "],
  "branch.setting": ["换什么", "Change"],
  "branch.value": ["换成", "to"],
  "branch.now": ["现在是 {value}", "now {value}"],
  "branch.where": ["在装着这堂课的文件夹里运行：", "Run it in the folder that holds this lesson:"],
  "branch.copy": ["复制命令", "Copy the command"],
  "branch.copied": ["已复制", "Copied"],
  "branch.none": [
    "这堂课没有留下检查点，不能从中分出。上课时加 --save-steps N --save-total-limit M，就会留下。",
    "This lesson kept no checkpoint to branch from. Lessons keep some with --save-steps N --save-total-limit M.",
  ],
  "branch.ended": [
    "只有最后一步还有检查点，那里已经没有要学的了：换 epoch 数可以接着学。",
    "Only the last step still has a checkpoint, where nothing is left to learn: with more epochs it goes on.",
  ],
  "setting.temperature": ["温度", "temperature"],
  "setting.alpha": ["α（跟教师学的分量）", "α (weight of the teacher)"],
  "setting.beta": ["β（跟原文学的分量）", "β (weight of the text)"],
  "setting.learning_rate": ["学习率", "learning rate"],
  "setting.num_epochs": ["epoch 数", "epochs"],
};

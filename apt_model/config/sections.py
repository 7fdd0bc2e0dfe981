"""The sections of the configuration: the loss, the training, the display.

Knows nothing of models, data or screens, nor of where values come from. Keys are flat: no two sections share one. A
field's description is also the help of its flag.
"""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from apt_model.errors import brief

Tracker = Literal["tensorboard", "wandb", "mlflow", "trackio"]
CrossTokenizer = Literal["refuse", "kl", "uld"]
WideMatmul = Literal["auto", "off"]
LossKind = Literal["forward_kl", "reverse_kl", "jsd", "skew_kl", "skew_reverse_kl"]
MIXTURES: Mapping[str, float] = {"jsd": 0.5, "skew_kl": 0.1, "skew_reverse_kl": 0.1}

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Prompt = Annotated[str, Field(min_length=1, max_length=1000)]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


class Section(BaseModel):
    """Base of the sections: strict types, frozen, unknown keys refused."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


class DistillConfig(Section):
    """The loss: `alpha * KD + beta * CE`, with KD = T² · mean D(teacher, student) at temperature T.

    The divergence D is KL(teacher ‖ student) unless `loss_kind` names another. `hidden_weight` and `attention_weight`
    each add a term that matches layers. Steps on text that the student generated (`on_policy`) leave CE out.
    """

    temperature: Positive = Field(4.0, description="temperature of both softmaxes in KD; usual: 1 to 8")
    alpha: Share = Field(
        0.7,
        description="weight of KD, the distillation loss, as DistillKit's alpha and axolotl's kd_alpha; "
        "alpha + beta = 1",
    )
    beta: Share = Field(
        0.3, description="weight of CE, the cross-entropy on the labels; TRL's beta (GKD) is not this but mixture"
    )
    loss_kind: LossKind = Field(
        "forward_kl", description="divergence in KD: KL(teacher||student), its reverse, generalized JSD, or a skewed KL"
    )
    mixture: Share | None = Field(
        None,
        description="beta of jsd, as TRL's beta in GKD (default 0.5), or skew of skew_kl and skew_reverse_kl "
        "(default 0.1)",
    )
    hidden_weight: NotNegative = Field(0.0, description="weight of the cosine distance of hidden states")
    attention_weight: NotNegative = Field(
        0.0, description="weight of the KL between self-attention relations, as in MiniLMv2"
    )
    layer_map: str = Field(
        "last",
        description="layers that these two compare: last, even (by relative depth), or student:teacher as in 2:4,4:8",
    )
    on_policy: Share = Field(
        0.0, description="share of steps (0 to 1) on student-generated text, by KD alone; TRL's lmbda"
    )
    on_policy_tokens: int = Field(64, ge=1, le=4096, description="maximum new tokens of each such text")
    on_policy_temperature: Positive = Field(1.0, description="sampling temperature of these texts")

    cross_tokenizer: CrossTokenizer = Field(
        "refuse",
        description="if the tokenizers differ: refuse to train, or align their tokens on the text and compare aligned "
        "spans by KL (kl) or by the L1 distance of sorted probabilities (uld)",
    )

    @model_validator(mode="before")
    @classmethod
    def _one_weight_fixes_the_other(cls, values: Any) -> Any:
        if not isinstance(values, Mapping):
            return values
        given = {key: values[key] for key in ("alpha", "beta") if key in values}
        if len(given) != 1:
            return values
        ((key, weight),) = given.items()
        other = "beta" if key == "alpha" else "alpha"
        is_share = isinstance(weight, int | float) and not isinstance(weight, bool) and 0 <= weight <= 1
        return {**values, other: round(1.0 - weight, 12)} if is_share else values

    @model_validator(mode="after")
    def _weights_sum_to_one(self) -> Self:
        total = self.alpha + self.beta
        if abs(total - 1) > 1e-6:
            alpha = round(self.alpha / total, 4) if total else 0.7
            raise ValueError(f"alpha and beta sum to {total:.6g}, not 1; try alpha={alpha:g}, beta={1 - alpha:.4g}")
        return self

    @model_validator(mode="after")
    def _some_settings_need_one_tokenizer(self) -> Self:
        given = [key for key in ("hidden_weight", "attention_weight", "on_policy") if getattr(self, key)]
        if self.cross_tokenizer != "refuse" and given:
            raise ValueError(
                f"cross_tokenizer={self.cross_tokenizer} cannot be combined with settings that need one tokenizer: "
                f"leave out {', '.join(given)}"
            )
        return self

    @model_validator(mode="after")
    def _layers_are_named(self) -> Self:
        if not re.fullmatch(r"last|even|[1-9]\d{0,3}:[1-9]\d{0,3}(,[1-9]\d{0,3}:[1-9]\d{0,3})*", self.layer_map):
            raise ValueError(
                f"layer_map: got {brief(self.layer_map)}, expected last, even, or layers counted from 1, "
                "student:teacher, as in 2:4,4:8"
            )
        return self

    @model_validator(mode="after")
    def _on_policy_needs_kd(self) -> Self:
        if self.on_policy and not self.alpha:
            raise ValueError("on_policy steps learn from KD alone, but alpha is 0; try alpha=0.7, beta=0.3")
        return self

    @model_validator(mode="after")
    def _mixture_belongs_to_the_kind(self) -> Self:
        if self.mixture is not None and self.loss_kind not in MIXTURES:
            raise ValueError(
                f"mixture={self.mixture:g} is no parameter of {self.loss_kind}, only of {', '.join(MIXTURES)}"
            )
        if self.mixture == 1 and self.loss_kind != "jsd":
            raise ValueError(f"mixture=1 makes {self.loss_kind} 0 for any student; try {MIXTURES[self.loss_kind]}")
        return self

    @model_validator(mode="after")
    def _cross_tokenizer_needs_forward_kl(self) -> Self:
        if self.cross_tokenizer != "refuse" and self.loss_kind != "forward_kl":
            raise ValueError(f"loss_kind={self.loss_kind} needs one vocabulary; with cross_tokenizer, use forward_kl")
        return self


class TrainConfig(Section):
    """The training: length, optimizer, precision, checkpoints, devices."""

    num_epochs: int = Field(3, ge=0, description="epochs: passes over the data")
    max_steps: int | None = Field(None, ge=1, description="stop after this many optimizer steps; overrides num_epochs")
    learning_rate: Positive = Field(1e-4, description="peak learning rate of AdamW")
    weight_decay: NotNegative = Field(0.01, description="AdamW's weight decay: matrices only, no norms or biases")
    lr_scheduler_type: Literal["linear", "cosine", "constant_with_warmup"] = Field(
        "cosine", description="learning rate schedule after the warm-up"
    )
    warmup_ratio: Share = Field(0.05, description="share of the steps (0 to 1) for the learning rate's linear warm-up")
    gradient_accumulation_steps: int = Field(1, ge=1, description="batches per optimizer step")
    max_grad_norm: Positive | None = Field(1.0, description="maximum gradient norm; a larger gradient is clipped to it")
    mixed_precision: Literal["no", "bf16", "fp16"] = Field("no", description="dtype of autocast, or no autocast")
    head_dtype: Literal["auto", "bf16"] = Field(
        "auto",
        description="dtype of both lm_head products; auto: the weights' or autocast's; bf16: faster, less exact",
    )
    wide_matmul: WideMatmul = Field(
        "auto",
        description="auto: large float32 products go to oneDNN instead of MKL where that is proven as exact and faster "
        "(AMD CPUs with AVX-512); off: torch decides, as without us",
    )
    chunk_rows: int | None = Field(
        None,
        ge=1,
        description="positions whose logits are computed at a time (default: what fits 256 MiB, 32 to 256 in float32)",
    )
    max_length: int = Field(
        512, ge=2, description="maximum tokens per sample; longer text is cut off, or split if packed"
    )
    merge_adapters: bool = Field(
        False, description="save a LoRA student merged into one model, instead of its adapters alone"
    )
    save_steps: int | None = Field(None, ge=1, description="checkpoint every N steps, and after each epoch")
    save_minutes: Positive | None = Field(None, description="checkpoint every N minutes, and after each epoch")
    save_total_limit: int = Field(2, ge=1, description="newest checkpoints to keep, besides the best")
    on_nonfinite: Literal["stop", "skip"] = Field(
        "stop", description="on a NaN or infinite loss or gradient: stop the run, or skip the optimizer step"
    )
    max_nonfinite: int = Field(5, ge=1, description="maximum consecutive steps that on_nonfinite=skip skips")
    rank_patience: Positive | None = Field(
        None,
        description="with several processes: seconds without a sign of life until one of them is lost, and all others "
        "end with exit code 6 (default: APT_RANK_PATIENCE in the environment, else 15)",
    )
    seed: int | None = Field(
        None,
        ge=0,
        lt=2**32,
        description="seed of Python, NumPy and PyTorch (default: 0 on the command line, else none)",
    )
    device: str = Field("auto", description="cpu, cuda, cuda:N, mps ...; auto: this machine's accelerator, else cpu")
    teacher_device: str | None = Field(None, description="device of the teacher (default: the student's)")
    fsdp: Literal["none", "student", "teacher", "both"] | None = Field(
        None,
        description="split parameters (the student's gradients and optimizer too) over all processes by FSDP2, instead "
        "of a copy on each (default: none; both under accelerate launch --use_fsdp --fsdp_version 2)",
    )


class DisplayConfig(Section):
    """The display: what is shown, how often, in which language. Nothing here can change the student."""

    show_samples: bool = Field(True, description="show cards: samples with the texts of teacher and student")
    show_diff: bool = Field(False, description="mark on cards where the student's text differs from the teacher's")
    sample_frequency: int = Field(50, ge=1, description="show a card every N batches")
    show_on: Literal["train", "validation"] = Field("train", description="which data the cards' samples come from")
    card_text: Literal["auto", "continued", "predicted"] = Field(
        "auto",
        description="texts of a card: continued (both models go on by themselves from the same beginning) or predicted "
        "(their best guess after each true token); auto: continued where both can generate and cards come every "
        "10th batch at most, else predicted",
    )
    max_text_length: int = Field(100, ge=1, le=1000, description="maximum characters of each text on a card")
    lang: str = Field("zh", description="language of the output: zh, en, or the path of a locale file (.toml)")
    exam_prompts: tuple[Prompt, ...] | None = Field(
        None,
        max_length=16,
        description="prompts that both models complete greedily at each exam; an empty list: no exams (default: a few "
        "from the data, in a run with cards and a run directory)",
    )
    exam_frequency: int | None = Field(None, ge=1, description="an exam every N steps (default: after each epoch)")
    reading_frequency: int | None = Field(
        None, ge=1, description="read the fixed rows every N steps (default: about six times in the run)"
    )
    exam_tokens: int = Field(32, ge=1, le=512, description="maximum new tokens of an exam answer or a card")
    given_tokens: int = Field(4, ge=0, le=64, description="first tokens of a sample, shown on its card as the prompt")
    excellent: tuple[Share, Positive] = Field(
        (0.2, 0.5), description="laziness and loss below which a card is excellent"
    )
    good: tuple[Share, Positive] = Field((0.4, 1.0), description="laziness and loss below which a card is good")
    fair: tuple[Share, Positive] = Field((0.6, 2.0), description="laziness and loss below which a card is fair")
    dashboard: bool = Field(False, description="also show the run in a browser while it trains; needs a run directory")
    ask: bool = Field(
        False,
        description="let viewers of the page ask questions, which both models answer at the next exam; needs a run "
        "directory",
    )

    report_to: tuple[Tracker, ...] = Field((), description="experiment trackers that log metrics and cards")

    @model_validator(mode="before")
    @classmethod
    def _toml_has_lists(cls, values: Any) -> Any:
        if not isinstance(values, Mapping):
            return values
        if isinstance(values.get("report_to"), str):
            values = {**values, "report_to": (values["report_to"],)}
        return {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}

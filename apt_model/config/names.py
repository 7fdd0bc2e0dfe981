"""Names that people type from other trainers (transformers, TRL, axolotl, LLaMA-Factory …): what each is here.

One table for flags, config files, dicts and objects. Knows names and values; knows nothing of where they are typed.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

Settings = Mapping[str, Any]
Takes = Callable[[Any], Settings | None]
Table = dict[str, "Name"]

FILES = "{data} and {validation_data} take files, folders or hub ids"
SAVED = "a checkpoint after each epoch, and every {save_steps} steps or {save_minutes} minutes"
PUSHED = "nothing is uploaded: the folder RUN/student is a Hugging Face model, `hf upload` takes it"


@dataclass(frozen=True, kw_only=True)
class Name:
    """What a name means here.

    Attributes:
        ours: our name for it; "" if there is none.
        takes: a value → our settings for it, {} where it asks for what happens anyway, None where it is not taken.
        answer: what to do instead, with our names in braces.
        several: whether it takes several values.
        is_switch: whether it can stand without a value.
        is_outside: whether it cannot change what the student learns: an object that sets it is told of, not refused.
    """

    ours: str = ""
    takes: Takes
    answer: str
    several: bool = False
    is_switch: bool = False
    is_outside: bool = False


def _is(value: Any, one: Any) -> bool:
    """Whether a value is this one; True is no 1, False no 0."""
    return isinstance(value, str | int | float) and isinstance(value, bool) == isinstance(one, bool) and value == one


def _same(ours: str, *theirs: str, several: bool = False) -> Table:
    """Names of one of ours, with the same values."""
    name = Name(ours=ours, takes=lambda value: {ours: value}, answer=f"our name is {{{ours}}}", several=several)
    return dict.fromkeys(theirs, name)


def _some(ours: str, values: Mapping[Any, Settings], answer: str, *theirs: str, other: bool = False) -> Table:
    """Names of which some values mean settings of ours; `other`: the rest are values of ours too."""

    def takes(value: Any) -> Settings | None:
        found = next((meant for one, meant in values.items() if _is(value, one)), None)
        return {ours: value} if found is None and other else found

    name = Name(ours=ours, takes=takes, answer=answer, is_switch=any(one is True for one in values))
    return dict.fromkeys(theirs, name)


def _not_here(answer: str, *theirs: str, fine: Sequence[Any] = (False,), is_outside: bool = False) -> Table:
    """Names that we lack; `fine` values ask for what happens here anyway."""

    def takes(value: Any) -> Settings | None:
        return {} if any(_is(value, one) for one in fine) else None

    is_switch = any(isinstance(one, bool) for one in fine)
    name = Name(takes=takes, answer=answer, is_switch=is_switch, is_outside=is_outside)
    return dict.fromkeys(theirs, name)


def _special(ours: str, takes: Takes, answer: str, *theirs: str, several: bool = False) -> Table:
    return dict.fromkeys(theirs, Name(ours=ours, takes=takes, answer=answer, several=several))


def _whole_epochs(value: Any) -> Settings | None:
    if isinstance(value, float):
        return {"num_epochs": int(value)} if value.is_integer() else None
    return {"num_epochs": value}


def _warmup(value: Any) -> Settings | None:
    """Up to 1 a share, as in transformers 5; else a number of steps, which we do not take."""
    return {"warmup_ratio": value} if isinstance(value, int | float) and 0 <= value < 1 else None


def _trackers(value: Any) -> Settings | None:
    named = [value] if isinstance(value, str) else value
    if not isinstance(named, list | tuple) or "all" in named:
        return None if isinstance(value, str) else {"report_to": value}
    return {"report_to": () if list(named) == ["none"] else tuple(named)}


def _sharded(value: Any) -> Settings | None:
    """Ours, or what others leave empty; "full_shard" does not say which models."""
    if not value:
        return {}
    return {"fsdp": value} if value in ("none", "student", "teacher", "both") else None


def _resumed(value: Any) -> Settings | None:
    return {"resume": value} if isinstance(value, bool) else None


def _files(ours: str) -> Takes:
    """Names and paths; not axolotl's tables of them."""

    def takes(value: Any) -> Settings | None:
        named = value if isinstance(value, list | tuple) else [value]
        is_named = all(isinstance(one, str | PurePath) for one in named)
        return {ours: [str(one) for one in named]} if is_named else None

    return takes


def _lora(part: str) -> Takes:
    def takes(value: Any) -> Settings | None:
        named = value if isinstance(value, list | tuple) else str(value).replace(",", " ").split()
        return {"lora": {part: "+".join("all-linear" if one == "all" else str(one) for one in named)}}

    return takes


BF16 = {True: {"mixed_precision": "bf16"}, False: {}}
FP16 = {True: {"mixed_precision": "fp16"}, False: {}}
ADAPTERS: dict[Any, Settings] = {
    True: {"lora": {}},
    False: {"lora": None},
    "lora": {"lora": {}},
    "full": {"lora": None},
}

NAMES: Mapping[str, Name] = {
    # models
    **_same("teacher", "teacher_model_name_or_path", "teacher_name_or_path", "teacher_model", "teacher_model_path"),
    **_same("student", "model_name_or_path", "student_model_name_or_path", "student_name_or_path", "student_model"),
    **_same("student", "base_model", "student_model_path"),
    **_not_here("our names are {student} and {teacher}", "model", "models", fine=()),
    **_some("teacher_dtype", {"float32": {}, "fp32": {}},
            "{teacher_dtype} is the teacher's; the student is trained in float32, with {mixed_precision} for autocast",
            "torch_dtype", "dtype"),
    **_same("teacher_dtype", "teacher_torch_dtype"),
    **_not_here("{teacher_quantization}=bnb-4bit or bnb-8bit quantizes the teacher; the student is not quantized",
                "load_in_4bit", "load_in_8bit", "quantization_bit"),
    **_not_here("not here; transformers chooses the attention", "attn_implementation", "flash_attention", "flash_attn",
                "use_flash_attention", fine=(False, "auto", "sdpa")),
    **_not_here("not here; code that comes with a model is never run", "trust_remote_code"),
    **_not_here("not here; {device} and {teacher_device} place the models", "device_map", fine=("auto",)),
    **_not_here("not here; the tokenizer is the student's own", "tokenizer", "tokenizer_config", "tokenizer_name",
                "tokenizer_name_or_path", fine=()),
    **_not_here("not here; the chat template is the tokenizer's own", "template", "chat_template",
                "chat_template_path", fine=("tokenizer_default",)),
    **_not_here("not here; set the environment variable HF_HOME", "cache_dir", fine=(), is_outside=True),
    # data
    **_special("data", _files("data"), FILES, "dataset_name", "train_file", "train_files", "dataset", "datasets",
               "dataset_path", "data_path", "train_data", "train_dataset", several=True),
    **_special("validation_data", _files("validation_data"), FILES,
               "validation_file", "eval_file", "eval_dataset", "test_file", "validation_dataset",
               several=True),
    **_same("split", "dataset_train_split", "train_split", "dataset_split"),
    **_same("validation_split", "val_size", "val_set_size", "test_size"),
    **_not_here("{validation_data} takes files or a hub id, {validation_split} a share or number of rows of {data}",
                "eval_split", "dataset_test_split", "dataset_eval_split", fine=()),
    **_same("text_column", "dataset_text_field", "text_field", "text_column_name"),
    **_not_here("not here; name the files of the one that you want in {data}", "dataset_config", "dataset_config_name",
                "subset", "dataset_dir", fine=()),
    **_same("max_length", "max_seq_length", "max_seq_len", "cutoff_len", "sequence_len", "block_size",
            "model_max_length"),
    **_same("packing", "sample_packing"),
    **_same("batch_size", "per_device_train_batch_size", "per_gpu_train_batch_size", "micro_batch_size",
            "train_batch_size"),
    **_not_here("validation has the same batches: {batch_size}", "per_device_eval_batch_size", "eval_batch_size",
                fine=(), is_outside=True),
    **_not_here("not here; give {data} the rows that you want", "max_samples", "max_train_samples", fine=()),
    **_not_here("not here", "dataset_num_proc", "preprocessing_num_workers", "dataloader_num_workers",
                "dataloader_pin_memory", "dataloader_prefetch_factor", "dataloader_persistent_workers",
                "dataset_prepared_path", "overwrite_cache", "remove_unused_columns",
                fine=(False, 0), is_outside=True),
    **_not_here("what is learned follows from the rows: completions, the assistant's turns, or whole texts",
                "train_on_inputs", "train_on_prompt"),
    **_not_here("what is learned follows from the rows: completions, the assistant's turns, or whole texts",
                "completion_only_loss", "assistant_only_loss", fine=(True,)),
    # the loss
    **_same("alpha", "kd_alpha", "kd_ratio", "kd_weight"),
    **_same("beta", "kd_ce_alpha", "ce_weight"),
    **_same("temperature", "kd_temperature", "distillation_temperature"),
    **_same("on_policy", "lmbda"),
    **_not_here("the tokens of a text that the student writes: {on_policy_tokens}; of an exam: {exam_tokens}",
                "max_new_tokens", "max_completion_length", fine=()),
    **_not_here("not here; teach texts that the teacher wrote, in {data}, with {alpha}=0", "seq_kd"),
    **_not_here("the loss is the mean over all labelled tokens of a step", "reduction", "reduce", fine=("mean",)),
    **_not_here("{loss_kind} names the divergence, {alpha} and {beta} weigh it and the labels", "loss_type",
                "loss_functions", "kd_loss", fine=("nll", "kl")),
    **_not_here("`apt-model cache-teacher --k` keeps the teacher's top logits", "kd_top_k", "kd_topk", fine=()),
    **_not_here("this is what happens here", "kd_trainer", fine=(True,)),
    **_not_here("this trains by distillation; {alpha}=0 learns from the labels alone", "stage", "plugins", "rl",
                fine=("sft", "kd")),
    **_not_here("not here", "label_smoothing_factor", "neftune_noise_alpha", fine=(0, 0.0)),
    # the training
    **_special("num_epochs", _whole_epochs, "{num_epochs} takes whole epochs; {max_steps} stops within one",
               "num_epochs", "num_train_epochs", "epochs", "n_epochs", "max_epochs"),
    **_some("max_steps", {-1: {"max_steps": None}}, "", "max_steps", "max_train_steps", "num_training_steps",
            other=True),
    **_same("learning_rate", "lr"),
    **_same("weight_decay", "wd"),
    **_some("lr_scheduler_type", {"constant": {"lr_scheduler_type": "constant_with_warmup", "warmup_ratio": 0.0}}, "",
            "lr_scheduler_type", "lr_scheduler", "scheduler", other=True),
    **_special("warmup_ratio", _warmup, "{warmup_ratio} is the share of the steps, such as 0.05", "warmup_steps"),
    **_same("warmup_ratio", "warmup_proportion"),
    **_same("gradient_accumulation_steps", "gradient_accumulation", "grad_accum", "accumulation_steps"),
    **_some("max_grad_norm", {0: {"max_grad_norm": None}}, "", "max_grad_norm", "gradient_clipping", "grad_clip",
            "clip_grad", other=True),
    **_some("mixed_precision", BF16, "{mixed_precision}=bf16", "bf16"),
    **_some("mixed_precision", FP16, "{mixed_precision}=fp16", "fp16"),
    **_not_here("not here", "group_by_length", "tf32", "bf16_full_eval", "fp16_full_eval", "pure_bf16"),
    **_not_here("not here; a smaller {batch_size} with {gradient_accumulation_steps} saves memory",
                "gradient_checkpointing", "activation_checkpointing", is_outside=True),
    **_not_here("not here", "gradient_checkpointing_kwargs", "activation_offloading", "torch_compile",
                "use_liger_kernel", "use_cache", "auto_find_batch_size", is_outside=True),
    **_not_here("not here; the optimizer is AdamW", "optim", "optimizer",
                fine=("adamw", "adamw_torch", "adamw_torch_fused")),
    **_not_here("not here; AdamW has torch's defaults, 0.9, 0.999 and 1e-8", "adam_beta1", "adam_beta2", "adam_epsilon",
                fine=(0.9, 0.999, 1e-8)),
    **_special("fsdp", _sharded, "{fsdp} is none, student, teacher or both: the models that are sharded (FSDP2)",
               "fsdp"),
    **_not_here("not here; {fsdp}=both shards both models over the processes (FSDP2)", "deepspeed", "fsdp_config",
                "tensor_parallel_size", fine=("",)),
    **_some("device", {True: {"device": "cpu"}, False: {}}, "{device}=cpu", "use_cpu", "no_cuda", "cpu"),
    **_same("seed", "random_seed"),
    **_not_here("{seed} is the seed of the data too", "data_seed", fine=()),
    **_not_here("not here; see {seed}", "full_determinism"),
    # adapters
    **_some("lora", {True: {"lora": {}}, False: {"lora": None}}, "", "lora", other=True),
    **_some("lora", ADAPTERS, "{lora}=r=16,alpha=32", "use_peft", "use_lora", "adapter", "finetuning_type"),
    **_special("lora", _lora("r"), "{lora}=r=16", "lora_r", "lora_rank"),
    **_special("lora", _lora("alpha"), "{lora}=alpha=32", "lora_alpha"),
    **_special("lora", _lora("dropout"), "{lora}=dropout=0.05", "lora_dropout"),
    **_special("lora", _lora("target"), "{lora}=target=q_proj+v_proj", "lora_target_modules", "lora_target",
               several=True),
    # what is kept and shown
    **_same("out", "output_dir", "output", "output_directory", "run_dir"),
    **_special("resume", _resumed, "{resume} continues the run in {out} from its newest checkpoint",
               "resume_from_checkpoint"),
    **_not_here("a run is never overwritten: {resume} continues it, another {out} begins a new one",
                "overwrite_output_dir"),
    **_not_here(SAVED, "save_strategy", fine=("epoch", "steps"), is_outside=True),
    **_not_here(SAVED, "save_only_model", is_outside=True),
    **_not_here("not here; the student is that of the last step, the best checkpoint is kept beside it",
                "load_best_model_at_end"),
    **_not_here("validation comes after each epoch where there is {validation_data} or {validation_split}; "
                "{reading_frequency} reads both models more often", "eval_strategy", "evaluation_strategy",
                "eval_steps", fine=("epoch", "no"), is_outside=True),
    **_not_here("leave it out: every step is in the record; {sample_frequency} says how often a card is shown",
                "logging_steps", "logging_strategy", "logging_first_step", "logging_dir", "disable_tqdm",
                is_outside=True),
    **_special("report_to", _trackers, "{report_to} takes the names of trackers: tensorboard, wandb, mlflow, trackio",
               "report_to", several=True),
    **_not_here("leave it out: the folder {out} is the run's name", "run_name", "project", "project_name", fine=(),
                is_outside=True),
    **_not_here(PUSHED, "push_to_hub", "hub_model_id", "hub_token", "hub_strategy", fine=(False, "every_save"),
                is_outside=True),
    **_not_here("leave it out: `apt-model distill` trains, and validates where there is validation data", "do_train",
                "do_eval", "do_predict", fine=(True, False), is_outside=True),
}  # fmt: skip


IN_THE_CALL: Mapping[str, str] = {  # names of the command line that are no settings: what they are in Python
    "teacher": "pass teacher_model= to the call",
    "student": "pass student_model= to the call",
    "data": "pass train_dataloader= to the call",
    "validation_data": "pass eval_dataloader= to the call",
    "out": "pass run_dir= to the call",
    "resume": "pass resume_from= to the call",
    "batch_size": "the DataLoader that you pass has its own batches",
    "lora": "pass a student with adapters, from apt_model.models.lora",
    **dict.fromkeys(
        ("split", "text_column", "columns", "packing", "streaming", "validation_split"),
        "prepare the rows that you pass with apt_model.data.dataset",
    ),
    **dict.fromkeys(
        ("teacher_dtype", "teacher_quantization"), "load the model that you pass so, with apt_model.load_model"
    ),
}

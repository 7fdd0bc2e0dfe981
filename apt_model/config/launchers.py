"""What accelerate's launcher was told of parallel training, in its environment: honoured or refused, never passed over.

Knows names of environment variables; knows nothing of models or processes.
"""

from collections.abc import Mapping

from apt_model.errors import ConfigError

ON = ("1", "true", "yes", "on")
INSTEAD = "accelerate launch --multi_gpu or torchrun, with --fsdp student, teacher or both to shard the models (FSDP2)"
OTHERS = {
    "ACCELERATE_USE_DEEPSPEED": "DeepSpeed",
    "ACCELERATE_USE_MEGATRON_LM": "Megatron-LM",
    "ACCELERATE_USE_PARALLELISM_CONFIG": "accelerate's parallelism_config (tensor, context or sequence parallel)",
}
UNMET = {
    "FSDP_OFFLOAD_PARAMS": "offloading parameters to the CPU",
    "FSDP_ACTIVATION_CHECKPOINTING": "FSDP's activation checkpointing",
}


def refuse_other_launchers(environment: Mapping[str, str]) -> None:
    """Refuse what accelerate's environment asks for, and is not offered here.

    Raises:
        ConfigError: names it, and what to use instead.
    """
    for variable, name in OTHERS.items():
        if _is_on(environment, variable):
            raise ConfigError(f"{name} is not offered", got=f"{variable}={environment[variable]}", fix=f"use {INSTEAD}")
    if not wants_fsdp(environment):
        return
    version = environment.get("FSDP_VERSION", "1")
    if version != "2":
        fix = "accelerate launch --use_fsdp --fsdp_version 2"
        raise ConfigError("FSDP1 is not offered", got=f"FSDP_VERSION={version}", expected="2", fix=fix)
    for variable, name in UNMET.items():
        if _is_on(environment, variable):
            fix = f"unset {variable}"
            raise ConfigError(f"{name} is not offered", got=f"{variable}={environment[variable]}", fix=fix)


def wants_fsdp(environment: Mapping[str, str]) -> bool:
    """Whether accelerate's launcher was told to shard (`accelerate launch --use_fsdp`)."""
    return _is_on(environment, "ACCELERATE_USE_FSDP")


def _is_on(environment: Mapping[str, str], variable: str) -> bool:
    return environment.get(variable, "").strip().lower() in ON

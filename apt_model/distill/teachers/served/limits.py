"""What is settled of a served teacher before it is asked. Knows settings; knows nothing of servers."""

from apt_model.errors import ConfigError

KEY = "APT_TEACHER_KEY"  # environment variable


def refuse_temperature(temperature: float) -> None:
    """Refuse to cache a served teacher for a training temperature other than 1.

    Raises:
        ConfigError: the tail's mass at another cannot be told from the top k at 1.
    """
    if temperature != 1:
        what = "a server gives log-probabilities at temperature 1, which do not tell the tail at another"
        raise ConfigError(what, got=f"temperature {temperature:g}", fix="give --temperature 1, here and to distill")

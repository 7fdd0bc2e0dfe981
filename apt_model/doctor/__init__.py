"""The pre-flight check: what is wrong with a run before its first step."""

"""The ranks of a run: who they are, how they agree, and who notices that one is lost."""

"""Sources of clips: shards, publishers' layouts, manifests, folders, Hugging Face datasets and generated sets.

`uwbench.sources.resolve.open_task` turns what the user typed into a `Dataset`. Only `check` decodes audio.
"""

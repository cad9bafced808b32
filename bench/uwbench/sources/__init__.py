"""Where clips come from: shards, publishers' layouts, tables, folders, Hugging Face datasets, generated sets.

`uwbench.sources.resolve.open_task` turns what the user wrote into a `Dataset`; nothing here decodes audio but `check`.
"""

"""The command line: words to arguments, results to tables, `--json` or exit codes; nothing else."""

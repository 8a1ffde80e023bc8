"""The command line: words in, exit codes out; all it does is there as Python too."""

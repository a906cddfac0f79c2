"""What the smaller commands of the command line do; cli.py reads their words."""

"""Leaderboards: methods, data sets and noises beside each other, by accuracy and by time. A row is a TOML file."""

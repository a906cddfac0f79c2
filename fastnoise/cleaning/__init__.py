"""Cleaning: which labels of a data set are wrong, and what they should be.

`clean` trains networks on the data set's own labels, several at a time as a sweep's jobs. Each network judges every
image after every epoch: images whose labels it has learnt from, and images whose labels it has never seen. What the
networks say together becomes a score for each label, the scores a probability that the label is wrong.
"""

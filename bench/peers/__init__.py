"""Other tools that send documents through batch APIs, each driven as its README says, in an environment of its own.

What is imported here runs in those environments: the standard library and the tool itself, nothing of ours.
"""

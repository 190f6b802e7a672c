"""The live check: three rows through each vendor's real batch endpoint, and where that differs from the emulator.

`conversation` says the same to a server of either vendor and keeps facts about its answers, `facts` makes them of
replies and compares two sets of them. It was built against the emulator and llmock, and has not met a vendor yet.
"""

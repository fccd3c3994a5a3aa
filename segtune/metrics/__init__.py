"""Metrics, as pure functions."""

#: The label of pixels that count nowhere, beside 0 (background) and 1 (foreground). It is not 255, so that masks of 0
#: and 255 that nobody has converted are still refused.
VOID = 254

"""What happens to an update in `fit`: everything between the gradients and the weights.

`hook` is the one place that every update goes through, in a fixed order: filter (`nonfinite`), clip
(`clips`), observers (`recorder`). `record` holds the norms that were recorded, `suggestion` a clip
threshold from them. The callbacks of `kerasrnn.callbacks` put all of it to work.
"""

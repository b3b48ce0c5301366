"""What to run on which machine: plans of one model in every quantization, and the catalogue ranked.

Knows how facts, arithmetic and measurements become advice, and explains it. Does not print (the doors do), does not
load or download models, and opens no connection unless it is asked to look at a source.

`plans.plans_of` plans one model, `fit.fit` ranks the catalogue, `alternatives.alternative` finds what to run instead of
a model that does not fit.
"""

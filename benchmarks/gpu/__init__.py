"""What a GPU does with the networks: is it right, how fast is it, and how far does training get.

    python -m benchmarks.gpu correctness speed --out OUT
    python -m benchmarks.gpu science --train PREPARED --out OUT --minutes 9

No Ray, no MLflow, nothing is installed. A stage consists of items; the result of each is printed
and appended to OUT/results.jsonl, and an item that has a result there is not run again. So a stage
that was cut off goes on with the next call. `benchmarks.gpu.parcel` packs a dataset for a machine
that nothing else reaches.
"""

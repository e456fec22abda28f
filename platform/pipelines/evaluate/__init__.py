"""`derainctl evaluate`: the metrics of models on prepared datasets, of each image and the means."""

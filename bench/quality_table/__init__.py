"""Quality of recipes on one model, beside the figures of the paper (see `bench/quality --help`)."""

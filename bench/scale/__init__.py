"""What the operator costs and how fast it is with a thousand models: see docs/benchmarks.md."""

"""The parts of benchmarks/compare.py. What runs among the peers (worker, engines, streams, sizes, peers_export) imports
the standard library, numpy and the peers only: their environment has no paraformer.
"""

"""Simulated machines: a pump rig with faults, and a house's energy use."""

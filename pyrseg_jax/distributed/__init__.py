"""Devices and processes: the mesh and its shardings, the processes of one run, and host memory."""

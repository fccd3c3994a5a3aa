"""Device, processes, console, files, measuring."""

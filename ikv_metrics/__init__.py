"""Metrics of readers and writers: the first observer. The room of prometheus-client, which the core never imports."""

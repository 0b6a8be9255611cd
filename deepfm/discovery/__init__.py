"""From a folder that nobody here has seen to a configuration that runs, and from one flat file to daily partitions."""

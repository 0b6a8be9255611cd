"""From raw daily partitions to a training window that copies no row."""

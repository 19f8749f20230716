"""Backup, restore and recovery of a PostgreSQL → CDC → Kafka pipeline."""

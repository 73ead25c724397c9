"""Segment many images and write what users asked for: folders, buckets, large pictures, videos."""

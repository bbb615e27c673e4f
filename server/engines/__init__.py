"""Engines of Flower's own that carry tasks for those who outgrow the link: Ray and the SuperLink."""

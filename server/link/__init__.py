"""Inside the link: ports, streams, who has joined with which shard, and the tasks that are out."""

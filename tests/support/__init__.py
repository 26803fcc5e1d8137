"""What several tests stand on: feedstocks as git repositories, GitHub's own payloads, a real Prefect."""

"""`derainctl leaderboard`: the registered versions, by what they were measured on and how."""

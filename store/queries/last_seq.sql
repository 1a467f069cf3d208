SELECT coalesce(max(commit_seq), 0) AS seq FROM spans

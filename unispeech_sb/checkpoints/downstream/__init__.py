"""Files of downstream models: the authors' and s3prl's."""

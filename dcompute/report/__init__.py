"""Reports: what is known of datasets, as aggregations on Dask dataframes."""

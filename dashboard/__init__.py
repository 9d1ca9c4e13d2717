"""A Streamlit view of the tables and figures in `reports`."""

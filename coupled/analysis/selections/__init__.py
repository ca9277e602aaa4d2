"""The data of every chart, as plain numbers: `plots` draws them as figures, `report` as the charts of its page."""

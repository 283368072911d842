"""The fast model of the CMS detector: what each particle leaves in tracker, ECAL and HCAL, and what is read out."""

"""An embedded, plugin-based document key-value store. The public modules are client, clientoptions, document and
factory.
"""
